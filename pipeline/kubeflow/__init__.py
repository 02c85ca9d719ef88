"""The same DAG on Kubeflow Pipelines (KFP): compile it, submit it, watch the run, run its tasks in pods."""
