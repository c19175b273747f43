"""Write-side validation: the protocol of validators, the shipped ones, and how configured ones are opened."""
