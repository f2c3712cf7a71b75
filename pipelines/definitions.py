"""What Dagster loads: everything in `defs/`, nothing else."""

import dagster as dg

from pipelines.home import ROOT

defs = dg.load_from_defs_folder(path_within_project=ROOT)
