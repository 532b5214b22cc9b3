import sys

from bertwright import finetuning

sys.modules[__name__] = finetuning
