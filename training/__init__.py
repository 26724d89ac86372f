"""The training image: MONAI bundles trained and evaluated on image sets of AWS HealthImaging.

The image follows SageMaker's container contract by itself, without a toolkit: `python -m training train`
is a training job, `python -m training evaluate` a processing job.
"""
