//! Conversion of `.eh_frame`.
