"""The page's side of the connection is as patient as every other device's, and refuses as clearly."""

from __future__ import annotations

from tests.web.node import needs_node, run_check


@needs_node
def test_losses_refusals_proxies_and_bounds(tmp_path):
    run_check("client", None, tmp_path)
