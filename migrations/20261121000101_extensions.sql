-- Extensions come before the file that takes `execute` on new functions from public: what an extension creates must keep it.
create extension if not exists vector with schema extensions;
