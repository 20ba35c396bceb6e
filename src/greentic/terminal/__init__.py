"""What programs print: lines for programs, and for people tables, pictures and progress that fit the terminal's width."""
