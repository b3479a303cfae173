"""What a person sees of a run, a plan or a comparison.

terminal    tables and progress; no drawing library
charts      figures in one style, for pictures and pages
pages       one self-contained HTML file of a run or a comparison
model_card  the README beside an adapter
tensorboard the same scalars as events
totals      sums over the rounds, and numbers written for people
costs       what accuracy is drawn against
"""
