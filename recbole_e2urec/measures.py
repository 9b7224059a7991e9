"""Which measures the table of a run shows: title, path in a row of the results, decimals."""

UNLEARNING = (
    ("test AUC", "test.auc", 4),
    ("test ACC", "test.acc", 4),
    ("test LogLoss", "test.logloss", 4),
    ("forget AUC", "forget.auc", 4),
    ("forget ACC", "forget.acc", 4),
    ("forget LogLoss", "forget.logloss", 4),
    ("JSD to Retrain", "to_retrain.jsd", 5),
    ("L2 to Retrain", "to_retrain.l2", 4),
    ("MIA AUC", "mia_auc", 4),
    ("held-out AUC, forgotten users", "heldout_forget_users.auc", 4),
    ("held-out AUC, everyone else", "heldout_other_users.auc", 4),
    ("seconds", "cost.seconds", 1),
    ("seconds / Retrain's", "cost.relative_to_retrain", 3),
    ("trained parameters", "cost.trained_parameters", 0),
    ("of them in the adapter", "cost.adapter_parameters", 0),
    ("steps", "cost.steps", 0),
    ("peak memory, MB", "cost.peak_memory_mb", 0),
)
# What methods show that trained something before the request, which serves later ones as well.
PRIOR = (
    ("seconds before any request", "cost.prior_seconds", 1),
    *(
        (f"seconds a request, of {count}", f"cost.amortised_seconds.{count}", 1)
        for count in (1, 10, 100)
    ),
)
# What classic models that forget show besides.
FORGETTING = (
    ("forget AUC", "forget.auc", 4),
    ("forget LogLoss", "forget.logloss", 4),
    ("held-out AUC, forgotten users", "heldout_forget_users.auc", 4),
    ("held-out AUC, everyone else", "heldout_other_users.auc", 4),
    ("seconds before the request", "cost.prior_seconds", 1),
)
COST = (("seconds", "cost.seconds", 1), ("trained parameters", "cost.trained_parameters", 0))
READING = "Read forget AUC, LogLoss and MIA AUC against Retrain's, not against 0.5."
