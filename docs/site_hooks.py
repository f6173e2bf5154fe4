"""Site hooks: what mkdocs does beyond its plugins: the README as first page, references, no links out of docs/."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "matting-compose": "matting_compose.cli:compose",
    "matting-train": "matting_compose.trainer.cli:train",
    "matting-predict": "matting_compose.trainer.commands:predict",
    "matting-evaluate": "matting_compose.trainer.commands:evaluate",
    "matting-export": "matting_compose.trainer.commands:export",
}
PACKAGES = ("matting_compose.composer", "matting_compose.trainer")


@event_priority(100)  # before the plugin looks where it is to search
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show the plugin the package alone: beside it lie environments, and a link to all of this."""
    folder = Path(tempfile.mkdtemp(prefix="matting-compose-site-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "matting_compose").mkdir()
    for name in ("__init__.py", "cli.py", "composer", "trainer", "manifests"):
        (folder / "matting_compose" / name).symlink_to(ROOT / name)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [str(folder)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files."""
    for name, text in (
        ("index.md", (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")),
        ("reference/commands.md", command_reference()),
        ("reference/python.md", python_reference()),
    ):
        files.append(File.generated(config, name, content=text))
    return files


def command_reference() -> str:
    """Return the page of all commands, of which the plugin makes tables."""
    blocks = ["# Every command and option"]
    for name, place in COMMANDS.items():
        module, _, command = place.partition(":")
        blocks.append(
            f"::: mkdocs-click\n    :module: {module}\n    :command: {command}\n    :prog_name: {name}\n"
            "    :depth: 1\n    :style: table\n"
        )
    return "\n\n".join(blocks)


def python_reference() -> str:
    """Return the page of all that both packages give, each by the module that it is defined in."""
    from importlib import import_module

    blocks = ["# Python"]
    for package in PACKAGES:
        module = import_module(package)
        blocks.append(f"## `{package}`\n\n{module.__doc__}")
        for name in sorted(module.__all__, key=str.lower):
            home = module._HOMES.get(name, f".{name}")
            blocks.append(f"::: {package}{home}" + (f".{name}" if name in module._HOMES else ""))
    return "\n\n".join(blocks)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave out links to files beside docs/, of the README's to those beside it: a site does not have them."""
    markdown = markdown.replace("](../README.md", "](index.md").replace("](../../README.md", "](../index.md")
    depth = r"\.\./" * (page.file.src_uri.count("/") + 1)
    if page.file.src_uri == "index.md":
        depth = r"(?!https?:|(?:how-to/)?[a-z0-9-]+\.(?:md|jpg)[)#])"
    return re.sub(rf"\[([^\]]+)\]\({depth}[^)#]+(?:#[^)]*)?\)", r"\1", markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show commands' examples line by line, and no default where there is none: the plugin has neither right."""
    if page.file.src_uri != "reference/commands.md":
        return html
    html = re.sub(r"<p>Examples:\n(.*?)</p>", r"<p>Examples:</p>\n<pre><code>\1</code></pre>", html, flags=re.DOTALL)
    return html.replace("<code>Sentinel.UNSET</code>", "")
