//! What is due, what was missed, and when to look again: a pure function of the cursor, the schedule, the policy and the time.
