"""How Sphinx makes a site of these pages: ``make docs``. It needs no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

import txpaxos

project = "txpaxos"
author = "The txpaxos developers"
version = release = txpaxos.__version__

extensions = ["sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"txpaxos {release}"
html_show_copyright = False
html_copy_source = False

nitpicky = True
nitpick_ignore_regex = [
    # Of others, which have their documentation elsewhere.
    (r"py:.*", r"(twisted|zope|collections|concurrent|logging|os|pathlib|random|typing)\..*"),
]

autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_typehints_format = "short"

FILES_OUTSIDE = {"../README": "start"}
"""Which page includes a file that pages link to and that is not in this folder."""


class PageLinks(SphinxTransform):
    """A link to ``page.rst`` leads to that file for a reader of the files, and to the page for one of the site.

    A page that is not there is a dead reference, as any other.
    """

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        for link in list(self.document.findall(nodes.reference)):
            found = re.fullmatch(r"([\w./-]+)\.rst", link.get("refuri", ""))
            if found is None:
                continue
            page = FILES_OUTSIDE.get(found[1], found[1])
            has_title = link.astext() != link["refuri"]  # Else the title of the page is put there.
            link.replace_self(
                addnodes.pending_xref(
                    "",
                    nodes.inline("", link.astext(), classes=["xref", "doc"]),
                    refdomain="std",
                    reftype="doc",
                    reftarget=page,
                    refexplicit=has_title,
                    refdoc=self.env.docname,
                    refwarn=True,
                )
            )


def setup(app: Sphinx) -> None:
    app.add_transform(PageLinks)
