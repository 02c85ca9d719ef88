"""The same DAG on Kubeflow Pipelines: compile it, run its tasks in pods, submit it."""
