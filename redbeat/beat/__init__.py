"""What a running beat does: leading, claiming, dispatching, resting, reporting.

Each role is a small part that owns its state and returns values; ``parts`` puts them together. What
a part needs of the scheduler is a protocol of the hooks that it calls, at each use, since people
override and patch them. To follow one tick, read ``office``, ``dispatcher``, ``claims``, ``batch``
and ``delivery``, in this order. Whether a due entry runs is decided at its turn in ``delivery``.
"""
