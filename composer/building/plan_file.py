"""Plan file: the plan that a dataset's folder holds, read back as a plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from ..base.errors import DatasetError
from ..dataset.documents import Document, Sha256, Split, describe_first, parse_document, read_json_object
from ..recipe import Recipe
from ..sources.foregrounds import Entry
from .plan import AS_IT_IS, PLAN, TARGET, Plan, plan_sha256
from .plan import VERSION as PLAN_VERSION

# Key, image, split; how many variants it has, where they are not as many as the recipe says; what it may not be.
_PlannedForeground = Annotated[
    tuple[str, str, Split]
    | tuple[str, str, Split, NonNegativeInt]
    | tuple[str, str, Split, NonNegativeInt, Literal["as it is", "target"]],
    BeforeValidator(lambda row: tuple(row) if isinstance(row, list) else row),
]


class _PlanDocument(Document):
    plan_sha256: Sha256
    plan_version: PositiveInt
    recipe: dict[str, Any]
    shape: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
    foregrounds: list[_PlannedForeground]
    backgrounds: list[str]

    @model_validator(mode="after")
    def _check(self) -> _PlanDocument:
        if not self.backgrounds and any(row[-1] not in (AS_IT_IS, 0) for row in self.foregrounds):
            raise ValueError("it has no backgrounds")
        return self


@dataclass(frozen=True)
class PlanFile:
    """A plan as a dataset's folder holds it.

    Attributes
    ----------
    plan : Plan
        With every draw and pairing, but without the places where pictures lie; sizes are unknown.
    recipe : dict[str, Any]
        As it is written.
    declared, computed : str
        The hash that the file states, and the one over what it says.
    version : int
        Of the rules that its pixels follow.
    """

    plan: Plan
    recipe: dict[str, Any]
    declared: str
    computed: str
    version: int


def load_plan(folder: Path) -> PlanFile:
    """Read a dataset's plan.

    Raises
    ------
    DatasetError
        It is missing, damaged, or of a newer version of the plan's rules.
    """
    path = folder / PLAN
    way_out = "restore it from a copy, or build into another folder"
    document = read_json_object(path, way_out)
    found = parse_document(_PlanDocument, document, path, way_out)
    if found.plan_version > PLAN_VERSION:
        raise DatasetError(
            f"{path}: of plan version {found.plan_version}; this program knows up to {PLAN_VERSION}: update it"
        )
    content = {key: value for key, value in document.items() if key != "plan_sha256"}
    # Where pictures come from decides no draw and no pairing, so that any layout stands for the one that is written;
    # but trimaps may be supplied, which goes with some.
    anywhere = {"foregrounds": {"layout": "dim", "root": "."}, "backgrounds": {"layout": "procedural"}}
    try:
        recipe = Recipe.model_validate({**found.recipe, **anywhere})
    except ValidationError as error:
        raise DatasetError(f"{path}: damaged (recipe: {describe_first(error)}); {way_out}") from None
    plan = Plan(
        recipe=recipe,
        foregrounds=tuple(
            Entry(entry[0], entry[1], composed=entry[-1] != AS_IT_IS, distracts=entry[-1] not in (AS_IT_IS, TARGET))
            for entry in found.foregrounds
        ),
        splits=tuple(entry[2] for entry in found.foregrounds),
        counts=tuple(entry[3] if len(entry) > 3 else recipe.variants for entry in found.foregrounds),
        backgrounds=tuple(found.backgrounds),
        sizes=(None,) * len(found.foregrounds),
        excluded=(),
        shape=(found.shape[0], found.shape[1]),
    )
    return PlanFile(plan, found.recipe, found.plan_sha256, plan_sha256(content), found.plan_version)
