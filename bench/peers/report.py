#!/usr/bin/env python3
"""Plots, tables and one page from results.json, which run.py measured.

    python bench/peers/report.py build/peers/results.json --out build/peers/report
    python bench/peers/report.py build/peers/results.json --docs docs/figures    # the figures alone

Writes report.html (self-contained), tables.md, results.csv and the figures as SVG and PNG. Needs no GPU, and no PyTorch.
"""

import argparse
import sys
from pathlib import Path

import bars
import page
import plots
from results import Data


def write(path, folder):
    """Everything, from results.json; prints what became of the aims."""
    data, folder = Data(path), Path(folder)
    figures = plots.draw_all(data, folder)
    page.write_csv(data, folder / "results.csv")
    (folder / "tables.md").write_text(page.markdown(data))
    (folder / "report.html").write_text(page.page(data, figures))
    print(bars.summary(data))
    return data


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", help="results.json")
    parser.add_argument("--out", help="where all of it goes [a folder report beside results.json]")
    parser.add_argument("--docs", help="write the figures alone, into this folder")
    options = parser.parse_args(arguments)
    if not Path(options.results).is_file():
        parser.error(f"there is no {options.results}")
    if options.docs:
        plots.draw_all(Data(options.results), options.docs)
    else:
        write(options.results, options.out or Path(options.results).parent / "report")
    return 0


if __name__ == "__main__":
    sys.exit(main())
