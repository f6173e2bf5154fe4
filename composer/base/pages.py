"""Pages: HTML from templates that escape whatever comes from a file; nothing in them is loaded from anywhere."""

from __future__ import annotations

from importlib import resources

from .packages import require_packages


def render_page(package: str, template: str, **values: object) -> str:
    """Fill in a template that comes in a package.

    Parameters
    ----------
    package : str
        Its dotted name.
    template : str
        The file's name.
    **values : object
        What the template names; all of it is escaped.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    MattingComposeError
        Jinja is not installed.
    """
    require_packages("jinja2", extra="report")
    import jinja2

    text = resources.files(package).joinpath(template).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text).render(**values)
