"""What settings are made of: groups of them, each with its default, unit, range and meaning."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class ConfigError(ValueError):
    """A setting that is unknown, out of range, or does not go with another one."""


def setting(default: Any, meaning: str, *, unit: str = "", live: bool = False, **limits: Any) -> Any:
    """Declare one setting: ``limits`` are pydantic's ge, gt, le, lt; ``live`` may change while a node is active."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit, "live": live}, **limits)


class Section(BaseModel):
    """A group of settings; unknown keys are refused and values cannot be changed in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truths_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads on, off, yes and no as truths, which would pass as 1 and 0."""
        if _holds_truth(value) and not _takes_truth(cls.model_fields[str(info.field_name)].annotation):
            # Key and value are told by whoever explains the error, as for every other fault of a single setting.
            raise PydanticCustomError("truth", "it takes no yes or no")
        return value


def _holds_truth(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_truth, value)))


def _takes_truth(annotation: Any) -> bool:
    return annotation is bool or any(map(_takes_truth, get_args(annotation)))
