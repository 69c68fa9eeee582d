#pragma once

#include "args.h"

namespace avar {

void forward(const Args& args);
void backward(const Args& args);

}  // namespace avar
