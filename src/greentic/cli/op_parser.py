"""The command lines of `gtc op` as the table of verbs has them: a parser for each, and their help (formats: op 1)."""

from __future__ import annotations

from greentic.cli import op_table
from greentic.cli.parser import Help, Parser
from greentic.ground.documents import JsonObject
from greentic.operate.verb import Flag, Verb
from greentic.terminal.output import FORMS

GLOBAL_VALUES = ("--store-root", "--answers", "--output")
GLOBAL_SWITCHES = ("--schema",)
"""Flags that stand anywhere, with a value and without."""


def _members_told(verb: Verb, members: JsonObject | None) -> list[str]:
    if members is None:
        return []
    from greentic.terminal.payload_members import as_rows

    return as_rows(members, {*verb.positionals, *(flag.field for flag in verb.flags)})


def attribute(flag: Flag) -> str:
    """The name of a flag's value among parsed arguments."""
    return flag.name.lstrip("-").replace("-", "_")


def parser_of(verb: Verb, members: JsonObject | None = None) -> Parser:
    """The parser of one verb: words, its flags, and what is meant by those that stand elsewhere. Its help tells the members of the payload
    that a schema has."""
    name = verb.name
    positionals = (f"<{p}>" if p in verb.required else f"[{p}]" for p in verb.positionals)
    parser = Parser(
        prog=f"gtc op {name}",
        usage=" ".join(("gtc op", name, *positionals, "[key=value …] [flags] [--answers FILE]")),
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        epilog="\n".join(
            (
                *_members_told(verb, members),
                "example:",
                f"  {verb.example}",
                "",
                "the payload as a JSON schema:",
                " ".join(("  gtc op", name, *map(str.upper, verb.required), "--schema")),
                "",
                "`gtc help op` tells of --store-root, --answers and --output, which every verb takes.",
            )
        ),
        formatter_class=Help,
    )
    own = {flag.name for flag in verb.flags}
    parser.beside = {name: name for name in (*GLOBAL_VALUES, *GLOBAL_SWITCHES) if name not in own}
    if "--output" not in own:
        parser.beside |= {f"--{form}": f"--output {form}" for form in FORMS}
    parser.add_argument("words", nargs="*", metavar="WORD", help="plain values in order, or key=value")
    if verb.watch:
        parser.add_argument("--watch", action="store_true", help="ask again every two seconds, until interrupted")
    for flag in verb.flags:
        if flag.switch:
            parser.add_argument(flag.name, action="store_true", dest=attribute(flag), help=flag.help)
        elif flag.repeat:
            parser.add_argument(flag.name, action="append", dest=attribute(flag), metavar=flag.metavar, help=flag.help)
        else:
            parser.add_argument(flag.name, dest=attribute(flag), metavar=flag.metavar, help=flag.help)
    return parser


def overview() -> str:
    """The help of `gtc op`."""
    lines = [
        "usage: gtc op [--store-root DIR] [--answers FILE] [--schema] [--output FORM] NOUN VERB …",
        "",
        "Author environments: what runs, from where, for whom. Reads and writes the store below ~/.greentic/environments unless "
        "--store-root says otherwise. FILE is a payload in JSON or YAML. FORM is table or wide (for people), json or yaml (for "
        "programs; json where there is no terminal), or name (one a line).",
        "",
    ]
    for noun in op_table.nouns():
        verbs = [v.verb for v in op_table.VERBS if v.noun == noun and noun != "deploy"]
        lines.append(f"  {noun:<13}{', '.join(verbs) if verbs else op_table.DEPLOY.summary}")
    lines += ["", "example:", "  gtc op env create prod --name Production"]
    lines += ["", "`gtc help op NOUN` and `gtc help op NOUN VERB` tell more"]
    return "\n".join(lines)


def noun_help(noun: str) -> str:
    """The help of a noun: its verbs, each with an example."""
    lines = [f"usage: gtc op {noun} VERB …", ""]
    for verb in op_table.VERBS:
        if verb.noun == noun:
            lines.append(f"  {verb.verb:<16}{verb.summary}")
            lines.append(f"  {'':<16}  {verb.example}")
    return "\n".join(lines)
