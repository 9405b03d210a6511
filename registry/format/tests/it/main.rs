//! The readers, the splitter, the frames and the index, on files that are made by hand and on a real run; and what stands
//! beside real weights.

#[cfg(test)]
mod beside_weights;
#[cfg(test)]
mod craft;
#[cfg(test)]
mod layout;
#[cfg(test)]
mod real_run;
#[cfg(test)]
mod split;
#[cfg(test)]
mod torch;
