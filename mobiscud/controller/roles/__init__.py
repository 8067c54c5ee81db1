"""The rows of the table, by what this cloudlet is to the UE; all of them pure."""
