"""The pages as a workspace of wandb; the one file that imports wandb_workspaces, and only when it is used.

Nothing is sent but by `saved`, which needs an account.
"""

import importlib.util
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import DistributedError, RunFolderError
from train.dashboard.pages import SAMPLES, Page, Panel

_PACKAGE = "wandb_workspaces"
# wandb refuses signs of these kinds (Unicode categories) in a name.
_REFUSED = ("So", "Sk", "Sm", "Sc", "Cs")


@dataclass(frozen=True)
class Target:
    """Where the dashboard belongs."""

    entity: str
    """In wandb; "": the account's default."""
    project: str
    name: str
    """Of the run."""
    wandb_id: str | None
    """Of the run in wandb; None: it has none yet."""


def specification(target: Target, pages: Sequence[Page], events: Sequence[str]) -> dict[str, Any]:
    """What is sent to wandb.

    Args:
        target: where it belongs.
        pages: its pages.
        events: what happened to the run, a line each.

    Raises:
        RunFolderError: the library is missing.
    """
    view = _workspace(target, pages, events)._to_model()
    return {
        "entity": view.entity,
        "project": view.project,
        "displayName": view.display_name,
        "spec": json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True)),
    }


def saved(target: Target, pages: Sequence[Page], events: Sequence[str]) -> str:
    """Save the dashboard in wandb; returns its address. For the arguments see `specification`.

    Raises:
        RunFolderError: the library is missing.
        DistributedError: wandb cannot be reached, or refuses.
    """
    workspace = _workspace(target, pages, events)
    try:
        if not target.entity:
            import wandb_workspaces.workspaces.interface as interface

            workspace.entity = interface.wandb.Api().default_entity
        return workspace.save().url
    except Exception as error:  # of many libraries
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DistributedError(f"wandb did not take the dashboard: {reason}") from error


def _workspace(target: Target, pages: Sequence[Page], events: Sequence[str]) -> Any:
    if importlib.util.find_spec(_PACKAGE) is None:
        raise RunFolderError(
            "The dashboard needs wandb-workspaces. Type pip install 'glm-pretraining[dashboard]'."
        )
    import wandb_workspaces.workspaces as ws

    filters = "" if target.wandb_id is None else ws.And(ws.Metric("ID") == target.wandb_id)
    return ws.Workspace(
        entity=target.entity,
        project=target.project,
        name=_allowed(target.name),
        sections=[_section(page, events) for page in pages],
        settings=ws.WorkspaceSettings(x_axis="samples_seen"),
        runset_settings=ws.RunsetSettings(filters=filters),
    )


def _section(page: Page, events: Sequence[str]) -> Any:
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as ws

    panels: list[Any] = [_line_plot(panel) for panel in page.panels]
    if page.has_samples:
        panels.append(reports.MediaBrowser(title="Filled blanks", media_keys=[SAMPLES]))
    if page.has_events:
        # Lines of code in Markdown: nothing in them is markup.
        lines = "\n".join(f"    {line}" for line in events)
        panels.append(reports.MarkdownPanel(markdown=f"What happened:\n\n{lines}\n"))
        panels.append(reports.RunComparer())
    return ws.Section(
        name=page.title,
        panels=panels,
        is_open=True,
        panel_settings=ws.SectionPanelSettings(x_axis="samples_seen"),
    )


def _line_plot(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as reports

    return reports.LinePlot(
        title=panel.title,
        x="samples_seen",
        y=list(panel.keys),
        metric_regex=panel.pattern or None,
        plot_type="stacked-area" if panel.is_stacked else "line",
        log_y=True if panel.is_logarithmic else None,
    )


def _allowed(name: str) -> str:
    kept = "".join(" " if unicodedata.category(c) in _REFUSED else c for c in name)
    return kept.strip() or "run"
