# %% [markdown]
# # A method of your own
#
# A step of the round is changed by a fleet around the job's own. This one moves the adapters half as far as their
# average, a server learning rate of one half; everything else stays: the plan, resuming, the records.

# %%
from dataclasses import replace

import sflam


class HalfWay(sflam.FleetAround):
    def download(self, round, devices, state):
        self.begun = state
        return super().download(round, devices, state)

    def average(self, round, devices, steps):
        found = super().average(round, devices, steps)
        moved = {name: self.begun[name].lerp(value, 0.5) for name, value in found.state.items()}
        return replace(found, state=moved)


# %% [markdown]
# ## Both side by side

# %%
job = sflam.load(None, ["learn.rounds=4", "learn.local_steps=4", "network.simulate=true"])
whole = sflam.train(job, "runs/whole")
half = sflam.train(job, "runs/half", around=HalfWay)

# %%
found = sflam.read_runs(["runs/whole", "runs/half"], ["whole step", "half a step"])
sflam.draw_accuracy(found)

# %% [markdown]
# Half a step learns more slowly here, at the same cost of a round:

# %%
sflam.draw_cost(found, "accuracy")
