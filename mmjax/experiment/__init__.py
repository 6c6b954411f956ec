"""Tables of methods: rows as data, one protocol, records on disk. ``run_table`` also works on custom arrays."""

from mmjax.experiment.runner import run_table as run_table
from mmjax.experiment.table import Matched as Matched
from mmjax.experiment.table import Member as Member
from mmjax.experiment.table import Paper as Paper
from mmjax.experiment.table import Row as Row
from mmjax.experiment.table import Table as Table
