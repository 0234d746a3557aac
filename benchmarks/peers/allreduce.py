"""Send what shards send, and nothing else: python allreduce.py SETTINGS, a JSON object of benchmarks.allreduce.start.

A turn answers with the microseconds of every call.
"""

from turns import settings, take_turns

from benchmarks import allreduce

take_turns(allreduce.start(**settings()))
