"""The ClientApp: a node's part of the model, on the node's own data."""

from sflam.flower.client_app import client_app

app = client_app()
