# %% [markdown]
# # A plan
#
# Which bandwidth, power, clock and bits should each device have, so that a round takes little time and energy? Planning
# needs no training, and the optimum comes with a proof.

# %%
import sflam
from sflam.planner.cell import decide

network = sflam.load(None, ["network.simulate=true", "network.radius_m=600", "network.bandwidth_mhz=2"])
found = decide(network, compare=True, draw=True)
found

# %% [markdown]
# Every device in a row, as a DataFrame where pandas is installed:

# %%
found.to_frame()

# %% [markdown]
# ## What is time worth?
#
# `plan.latency_weight` weighs seconds against joules.

# %%
for weight in (0.1, 0.5, 0.9):
    plan = decide(sflam.load(None, ["network.simulate=true", f"plan.latency_weight={weight}"])).plan
    print(f"weight {weight}: {plan.latency:.3f} s, {plan.energy:.3f} J, certified gap {plan.gap:.1%}")
