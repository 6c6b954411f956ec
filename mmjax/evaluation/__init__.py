"""The protocol: records on disk, intervals and tests, calibration, and the report made of them."""

from mmjax.evaluation.report.advice import advise as advise
from mmjax.evaluation.report.comparison import compare_tables as compare_tables
from mmjax.evaluation.report.from_logits import report_logits as report_logits
from mmjax.evaluation.report.summary import summarise as summarise
from mmjax.evaluation.report.write import format_table as format_table
from mmjax.evaluation.report.write import write_report as write_report
from mmjax.evaluation.store.records import RecordStore as RecordStore
from mmjax.evaluation.store.schema import Record as Record
from mmjax.evaluation.store.schema import make_record as make_record
