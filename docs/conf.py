"""How Sphinx makes a site of these pages: ``make docs``. It needs no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from opentelemetry.context import Context
from opentelemetry.trace import Span, Tracer
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform

import txpaxos
import txpaxos.aio.client
import txpaxos.aio.node
import txpaxos.client.client
import txpaxos.node.node
import txpaxos.recipes
import txpaxos.server.served_node
from txpaxos.keys.folder import Keys
from txpaxos.node.peer_tls import PeerTls

# These modules import the classes for type checkers only, since they load what a program without keys does not need.
for module in (txpaxos.aio.client, txpaxos.client.client, txpaxos.node.node, txpaxos.server.served_node):
    module.Keys = Keys  # type: ignore[attr-defined]
for module in (txpaxos.aio.client, txpaxos.aio.node, txpaxos.client.client, txpaxos.server.served_node):
    module.Tracer, module.Span, module.Context = Tracer, Span, Context  # type: ignore[attr-defined]
txpaxos.node.node.PeerTls = PeerTls  # type: ignore[attr-defined]

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
    # Type variables, and what only type checkers see.
    (r"py:.*", r"P|txpaxos\.(recipes|service)\..*\.T|txpaxos\.service\.declaration\.(R|Result|S|Method)"),
    (r"py:.*", r"txpaxos\.recipes\.map\.NoValue"),
    # Of the status address: what its own pages are made of.
    (r"py:.*", r"txpaxos\.status_port\.channel\.StatusRequest|txpaxos\.server\.companion\..*|Companion|Surroundings"),
    # Of others, which have their documentation elsewhere.
    (
        r"py:.*",
        r"(twisted|zope|cryptography|opentelemetry|msgspec|collections|concurrent|datetime|logging|os|pathlib|random"
        r"|typing)\..*",
    ),
]

autodoc_member_order = "bysource"
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


def resolve_public_name(app: Sphinx, env: BuildEnvironment, node: Any, text: Any) -> Any:
    """A docstring names a public class by its module, or by its name alone in that module; it is described as one of
    ``txpaxos`` or ``txpaxos.recipes`` itself."""
    if node.get("refdomain") != "py":
        return None
    for face, name in [(one, name) for one in (txpaxos, txpaxos.recipes) for name in one.__all__]:
        module = getattr(getattr(face, name), "__module__", None)
        full = node["reftarget"].removeprefix(f"{module}.")
        candidates = [f"{face.__name__}.{full}"] if full.split(".")[0] == name else []
        if (node.get("py:class") or "").split(".")[0] == name:
            candidates.append(f"{module}.{full}")
        for candidate in candidates:
            domain = env.domains.python_domain
            if link := domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], candidate, node, text):
                return link
    return None


def setup(app: Sphinx) -> None:
    app.add_transform(PageLinks)
    app.connect("missing-reference", resolve_public_name)
