extern "C" int fatwheel_hostile_module() { return 1; }
