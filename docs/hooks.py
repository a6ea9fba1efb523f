"""What the site's builder does not know: docstrings name things as Sphinx does (:class:`~package.Name`), and a page shows the name alone."""

from __future__ import annotations

import re
from typing import Any

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):<code>(~?)([\w.]+)(?: &lt;[\w.]+&gt;)?</code>")


def on_page_content(html: str, **_: Any) -> str:
    """Roles become the names they stand for; a tilde leaves out where a name is from."""
    return ROLE.sub(lambda found: f"<code>{found[2].rpartition('.')[2] if found[1] else found[2]}</code>", html)
