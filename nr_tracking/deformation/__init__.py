"""The mesh half: patches, associations and near-rigid deformation."""
