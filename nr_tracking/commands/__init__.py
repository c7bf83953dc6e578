"""What the subcommands of ``nr_tracking`` do; each is a function that other programs may call as well."""
