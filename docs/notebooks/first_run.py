# %% [markdown]
# # A first run
#
# Fine-tune the bundled vision transformer on handwritten digits, split between ten devices and a server, over a
# simulated radio network. Needs `pip install -e '.[train]'`, no network, and half a minute.

# %%
import sflam

job = sflam.load(None, ["learn.rounds=4", "network.simulate=true"])
result = sflam.train(job, "runs/first")

# %% [markdown]
# A bar shows how far the run is. What it reached and cost:

# %%
result

# %% [markdown]
# The same over rounds. `to_frame()` of a run is a pandas DataFrame where pandas is installed.

# %%
found = sflam.read_runs(["runs/first"])
sflam.draw_accuracy(found, "joules")

# %% [markdown]
# ## Against another method
#
# Federated fine-tuning of the whole model: the same samples, mini-batches and network. A finished run is not repeated.

# %%
from pathlib import Path

from sflam.compare.comparison import compare

compare(job, Path("runs/compare"), ["sflam", "fedlora"])
