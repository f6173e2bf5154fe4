"""Pages: HTML from templates that escape whatever comes from a file.

All pages share one frame and one style. Their policy allows the style and the script that are shipped, and pictures
that lie in the page or beside it; nothing is loaded from anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from .errors import BuildError

__all__ = ["render_page"]

SHARED_TEMPLATES = ("page.html.j2", "macros.html.j2")


SHARED_SCRIPT = "pages.js"


def render_page(package: str, template: str, *, script: str | None = None, **values: object) -> str:
    """Fill in a template that comes in a package.

    Parameters
    ----------
    package : str
        Its dotted name.
    template : str
        The file's name. It extends ``page.html.j2`` and fills its block ``body``.
    script : str, optional
        The name of the JavaScript file beside it, which comes after ``pages.js``.
    **values : object
        What the template names; all of it is escaped. ``title`` is the page's; ``data`` is given to the script, as
        JSON; ``images`` is where pictures may come from, in the policy's words, if not only from within the page.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    BuildError
        The template is not that of this program's version.
    """
    import jinja2  # here, since few commands draw pages
    from markupsafe import Markup

    def read(package: str, name: str) -> str:
        return resources.files(package).joinpath(name).read_text(encoding="utf-8")

    sources = {**{name: read(__package__, name) for name in SHARED_TEMPLATES}, template: read(package, template)}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.DictLoader(sources),
    )  # fmt: skip
    style = read(__package__, "pages.css")
    code = read(__package__, SHARED_SCRIPT) + read(package, script) if script else ""
    try:
        text = environment.get_template(template).render(
            **values,
            style=Markup(style),
            script=Markup(code),
            style_hash=_policy_hash(style),
            script_hash=_policy_hash(code),
        )
    except jinja2.TemplateError as error:  # an installation that was updated meanwhile
        raise BuildError(
            f"{template}: the page cannot be drawn ({error}); was the program updated meanwhile?"
        ) from error
    return text.encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be written; it is marked


def _policy_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
