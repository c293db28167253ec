// For a process that forks many copies of itself. What is free on its heap lies between what is used, on as many pages
// as there are holes, and a copy that allocates writes to one after the other: each costs it a page of its own.
#pragma once

#include <cstddef>

namespace execnet::base {

// Takes all holes for good, so that the next small blocks lie side by side at the end of the heap. Returns how many
// bytes were taken. Where the heap is not that of glibc 2.33 or newer nothing happens.
//
// THREAD: one that uses the main heap, while no other allocates.
std::size_t fill_heap_holes();

}  // namespace execnet::base
