// What stands for a kernel that is left out: see nvcc beside this.
