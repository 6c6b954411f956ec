"""The protocol: records on disk, intervals and tests, calibration, and the report made of them."""

from mmjax.evaluation.advice import advise as advise
from mmjax.evaluation.compare import compare_tables as compare_tables
from mmjax.evaluation.own import report_logits as report_logits
from mmjax.evaluation.records import Record as Record
from mmjax.evaluation.records import RecordStore as RecordStore
from mmjax.evaluation.records import make_record as make_record
from mmjax.evaluation.report import format_table as format_table
from mmjax.evaluation.report import summarise as summarise
from mmjax.evaluation.report import write_report as write_report
