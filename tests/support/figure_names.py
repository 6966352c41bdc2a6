"""The figures of `tamulag evaluate` by the form of the labels, in their order."""

SPREAD = ("mean", "deviation", "beyond_1", "covered")
ACCURACY = ("Acc2_has0", "Acc2_non0", "F1_has0", "F1_non0", "Acc7")
MOSI = ("n", "MAE", "Corr", *ACCURACY, "missing", *SPREAD)
SIMS = ("n", "MAE", "Corr", "Acc2", "Acc3", "Acc5", "F1", "missing", *SPREAD)
