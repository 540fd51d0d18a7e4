"""``commonweight labels``: reading a sample of answers, and what the labels say of the rules that read all."""

from pathlib import Path
from typing import Annotated

import typer

from commonweight.cli.options import AsJson
from commonweight.cli.terminal import print_json
from commonweight.cli.workshop import user_errors

commands = typer.Typer(help="Label answers by reading, to check the rules of evaluations.", no_args_is_help=True)

Evaluation = Annotated[
    Path,
    typer.Argument(
        metavar="OUTPUT", help="Output folder of a stage evaluate with the task compliance.", exists=True
    ),
]


@commands.command()
def draw(
    evaluation: Evaluation,
    sheet: Annotated[Path, typer.Argument(metavar="SHEET", help="File to write, with texts: keep it private.")],
    count: Annotated[int, typer.Option(metavar="N", help="Answers.", min=1, max=10_000)] = 150,
    seed: Annotated[int, typer.Option(metavar="N", help="Draws them.", min=0)] = 0,
) -> None:
    """Draw answers to label. Fill in each `label`: refuse, comply or neither."""
    from commonweight.workshop.evals.labelling import draw_sheet

    with user_errors():
        drawn = draw_sheet(evaluation, sheet, count, seed)
    typer.echo(f"Wrote {drawn} answers to {sheet}, readable by you only.")


@commands.command()
def collect(
    sheet: Annotated[Path, typer.Argument(metavar="SHEET", help="Sheet with a label for each answer.")],
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="File to write: ids and digests, no texts.")],
    labeller: Annotated[str, typer.Option(metavar="NAME", help="Name of the reader; it is published.")],
) -> None:
    """Write the labels of a sheet without its texts."""
    from commonweight.workshop.evals.labelling import collect_labels

    with user_errors():
        count = collect_labels(sheet, labeller, labels)
    typer.echo(f"Wrote {count} labels to {labels}.")


@commands.command()
def check(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Labels of answers.")],
    evaluation: Evaluation,
    as_json: AsJson = False,
) -> None:
    """Compare labels with what the rules said: the confusion matrix, with intervals."""
    from commonweight.workshop.evals.labelling import check_labels, format_agreement

    with user_errors():
        found = check_labels(labels, evaluation)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        typer.echo(format_agreement(found), nl=False)
