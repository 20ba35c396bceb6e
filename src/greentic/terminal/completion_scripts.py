"""The scripts of `gtc completion`, by which a shell asks `gtc complete` for words, and how each is put in its place."""

from __future__ import annotations

SCRIPTS = {
    "bash": """# gtc completion bash > ~/.local/share/bash-completion/completions/gtc
COMP_WORDBREAKS=${COMP_WORDBREAKS//@}
_gtc() {
  local IFS=$'\\n'
  COMPREPLY=($(gtc complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _gtc gtc
""",
    "zsh": """#compdef gtc
# gtc completion zsh > "${fpath[1]}/_gtc"
_gtc() {
  local -a found
  found=(${(f)"$(gtc complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
  if (( $#found )); then compadd -- $found; else _files; fi
}
if [ "$funcstack[1]" = _gtc ]; then _gtc; else compdef _gtc gtc; fi
""",
    "fish": """# gtc completion fish > ~/.config/fish/completions/gtc.fish
function __gtc_words
  set -l found (gtc complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)
  if test (count $found) -gt 0
    printf '%s\\n' $found
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c gtc -f -a '(__gtc_words)'
""",
}

USAGE = f"usage: gtc completion {'|'.join(SCRIPTS)}"
HELP = f"""{USAGE}

Print a script by which a shell completes commands, flags, and the names of environments, bundles and revisions. Put it where the \
shell looks for one, and open a new shell:

  gtc completion bash > ~/.local/share/bash-completion/completions/gtc
  gtc completion zsh > "${{fpath[1]}}/_gtc"
  gtc completion fish > ~/.config/fish/completions/gtc.fish

or for this shell alone:

  source <(gtc completion bash)"""
