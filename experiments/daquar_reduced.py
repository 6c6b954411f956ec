"""DAQUAR, reduced: 297 questions about 25 photographs and 37 kinds of objects (Malinowski & Fritz, NIPS 2014).

    python -m experiments table daquar_reduced --data-dir DIR

The rows of ``daquar`` on the part that most publications report. One standard error is 2.9 points: it can show no
difference between the rows (a closed form measured so elsewhere answers 40.7 % by the question alone, 40.1 % with the
photograph). Read ``daquar``.
"""

import dataclasses

from experiments import daquar
from mmjax.experiment import Paper
from mmjax.tasks import Classification

ANSWERS = 59
REN = "Ren, Kiros & Zemel, NIPS 2015"
TABLE = dataclasses.replace(
    daquar.TABLE,
    title="DAQUAR, exact match of the answer, reduced test set (297 questions)",
    options={"reduced": True},
    task=Classification(num_classes=ANSWERS),
    rows=tuple(daquar.rows(ANSWERS)),
    references=[
        ("IMG-CNN (Ma et al. 2016)", Paper(39.7, daquar.YANG, checked=True, cannot_run=daquar.NOT_HERE)),
        ("SAN(2, LSTM)", Paper(46.2, daquar.YANG, checked=True, cannot_run=daquar.NOT_HERE)),
        ("GUESS", Paper(18.24, REN, cannot_run=daquar.NOT_HERE)),
        ("BOW, blind", Paper(32.67, REN, cannot_run=daquar.NOT_HERE)),
        ("LSTM, blind", Paper(32.73, REN, cannot_run=daquar.NOT_HERE)),
        ("IMG+BOW", Paper(34.17, REN, cannot_run=daquar.NOT_HERE)),
        ("VIS+LSTM", Paper(34.41, REN, cannot_run=daquar.NOT_HERE)),
        ("2-VIS+BLSTM", Paper(35.78, REN, cannot_run=daquar.NOT_HERE)),
        ("human", Paper(60.27, REN, cannot_run="people")),
    ],
    note="Answers that the official train part gives fewer than 3 times are not on the list: wrong.",
)
