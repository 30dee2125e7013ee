"""What work takes in memory and time, counted before it begins.

    counting   live bytes of everything that runs inside, and attention as fused kernels compute it
    networks   models without values: on the meta device, from a name, a folder's configuration or a file's header
    phases     what drawing, decoding, encoding and teaching take, by running each once on such a model
    planner    all of that of one model, every count made once
    fitting    the settings that fit a graphics card with the least loss
    loaded     the same on a model that is in memory, and seconds of a step
    words      all of that as lines to read

Nothing is estimated from a rule: the program's own functions run on tensors that have shapes and no values
(the meta device), and every storage that is made counts from then on until nobody needs it any more. Since tensors of
two devices do not mix, the same run shows that nothing is left on another device.
"""
