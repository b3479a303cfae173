"""The ServerApp: any strategy of Flower chooses the nodes and averages; FedAvg over all of them by default."""

from sflam.flower.server_app import server_app

app = server_app()
