"""Keys, signatures, trust roots and the digest gate: functions over bytes. No input or output but the gate's private file."""
