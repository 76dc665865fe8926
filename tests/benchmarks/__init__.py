"""Measurements of this package beside celery-redbeat 2.x and bare loops of `app.send_task`.

`python -m benchmarks`, in the directory `tests`, prints one table. Each measurement is a module
here; what they measure runs in processes of its own, as modules of `benchmarks.workloads`. Both
packages run the same workloads, which therefore use no more than the interface that 2.x has.

Linux only: the peak memory and the CPU time of a process are read from `/proc`.
"""
