"""What settings are made of: groups of them, each with its default, unit, range and meaning."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def setting(default: Any, meaning: str, *, unit: str = "", live: bool = False, **limits: Any) -> Any:
    """Declare one setting: ``limits`` are pydantic's ge, gt, le, lt; ``live`` may change while a node is active."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit, "live": live}, **limits)


class Section(BaseModel):
    """A group of settings; unknown keys are refused and values cannot be changed in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
