"""What a sampled answer is worth: `terms` scores attempts, `presets` names the sums of terms."""
