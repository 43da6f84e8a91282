"""Settings of the user encoders in the box."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PassThroughConfig(BaseModel):
    """Settings of the pass-through user encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    text_limit: int = Field(default=24, ge=1, le=512)
    """Tokens kept of a query's text; 99.9 % of Home Depot's queries have fewer."""
