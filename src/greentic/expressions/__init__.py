"""Templates and conditions: functions of values."""
